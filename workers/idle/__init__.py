"""When this host's GPUs may be used: what the driver says, the policy, its verdict on each GPU, and giving back."""
