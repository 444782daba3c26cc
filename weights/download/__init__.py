"""From a model id or a URL to a file on this disk: resumed, checked, cached."""
