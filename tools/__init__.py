"""Tools: how they are declared (`tool`), and how a granted call is carried out (`dispatch`)."""
