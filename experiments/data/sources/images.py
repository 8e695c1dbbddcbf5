"""Extensions of image files that a source may hold, by preference where a record has several."""

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".avif",
)  # fmt: skip
