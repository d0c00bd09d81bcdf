"""Telling people what happened, by mail or webhook: noted with the change itself, sent by the control process."""
