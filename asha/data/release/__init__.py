"""Who still holds the store, and taking it from them."""
