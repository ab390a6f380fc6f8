"""Where labelled images come from: folders, tar and zip archives in the layouts that ImageNet is handed around in."""
