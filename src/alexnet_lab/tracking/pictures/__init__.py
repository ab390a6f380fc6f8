"""Pictures of what a network sees and thinks, as Pillow images."""
