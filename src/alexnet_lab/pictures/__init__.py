"""Pictures of a run as Pillow images, and the callback that draws them."""
