"""The demo: two tiny models, built on the spot, through the whole line. Not part of the wheel."""

UNTRAINED = "tiny-untrained"
TRAINED = "tiny-trained"
