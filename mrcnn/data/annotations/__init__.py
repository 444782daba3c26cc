"""The one rule for annotation files: what each record means, what is mended in it, and what is refused."""
