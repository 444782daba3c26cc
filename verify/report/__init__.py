"""The page that shows what was compared."""
