"""Other ways to the same numbers, faster or more exact on one kind of device."""
