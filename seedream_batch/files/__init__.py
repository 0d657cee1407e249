"""Everything that touches image files: atomic writes, checks of pictures, reference images."""
