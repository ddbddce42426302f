"""A damaged AstDB: what of it can be read, and a new one made of that."""
