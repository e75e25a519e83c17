"""The messages between a run and the layers it uses: data alone, which both sides import."""
