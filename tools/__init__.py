"""Tools: how they are declared (`tool`), how a granted call is carried out (`dispatch`), what runs it (`runners`)."""
