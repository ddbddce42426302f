"""All that would keep an installation from ending well, found before it begins."""
