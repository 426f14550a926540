"""Lightning modules: what is trained, its loss and its optimizer."""
