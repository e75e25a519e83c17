"""What operators ask and are answered: messages of clients, and overviews of runs."""
