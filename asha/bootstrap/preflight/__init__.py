"""Everything that would make an installation fail, found before it begins."""
