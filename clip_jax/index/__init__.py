"""An index of image embeddings on disk, for folders, tar files and prepared data of any size.

    build_index(clip, "photos", "photos.index")
    index = open_index("photos.index")
    for match in index.search(query_vector(clip, texts=["кошка"], minus=["собака"]), 5):
        print(match.key, match.cosine)

sources.py     lists and reads the images of a folder, of tar files, of a prepared set
catalog.py     a SQLite table: key of an image -> size, time, content hash, row
embeddings.py  float16[rows, E], memory-mapped; rows are appended
build.py       encodes what is new or changed, on all devices
query.py       texts and images, added and subtracted, as one unit vector
nearest.py     exact search, and faiss above EXACT_LIMIT rows
folder.py      opens an index and searches it
export.py      Parquet, and the layout that clip-retrieval reads
"""

from clip_jax.index.build import BuildReport, build_index
from clip_jax.index.export import FORMATS, export_index
from clip_jax.index.folder import IndexFolder, Match, is_index, open_index
from clip_jax.index.query import query_vector

__all__ = [
    "FORMATS", "BuildReport", "IndexFolder", "Match",
    "build_index", "export_index", "is_index", "open_index", "query_vector",
]  # fmt: skip
