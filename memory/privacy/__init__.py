"""What may not be kept, or must be labelled: secrets and personal data, in texts as people read them."""
