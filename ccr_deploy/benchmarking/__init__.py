"""How fast engines are, against PyTorch eager: processes of their own, taken in turn, raw samples."""
