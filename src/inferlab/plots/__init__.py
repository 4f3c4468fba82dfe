"""One function a picture; each gives a matplotlib Figure with Chinese labels that render
anywhere."""
