"""Where labelled images come from: folders and tar archives in the layouts that ImageNet is handed around in."""
