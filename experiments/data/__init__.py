"""Data sets and the streams that training reads from them."""
