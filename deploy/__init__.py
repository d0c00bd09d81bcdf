"""What installs, starts and shows Evalyard. Not part of the wheel."""
