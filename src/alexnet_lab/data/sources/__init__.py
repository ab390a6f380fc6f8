"""Sources of labelled images: folders, tar and zip archives, in the usual layouts of ImageNet."""
