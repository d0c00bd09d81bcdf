"""Accounts: who asks, what they may do, and how they prove it. Without a provider there is one person, local."""
