"""What the quickstart measures and draws, one file a data set."""
