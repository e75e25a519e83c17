"""Who is asking and what for, as seals prove it: identities, grants, warrants, operators' orders to memory."""
