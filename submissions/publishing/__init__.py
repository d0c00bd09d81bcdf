"""`evalyard publish`: the files of a board that leaves this hub, its static pages among them."""
