"""What runs inside the images: start-up, services, checks. Standard library only, Python 3.10 and newer."""
