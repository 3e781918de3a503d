"""The sections of the page, a file each: histories of runs in, what is shown out."""
