"""Work on any number of items: cut into pieces, resumable, shared by processes and devices.

    with open_pairs("shards") as source:
        run_bulk(ScoreTask(clip, least=0.25), source, "scores", settings, part=Part(0, 64))

items.py       an item, a record, and what a source of them is
images.py      images of a folder, of tar files, of a prepared set
pairs.py       images with texts, from the same places or from a table
prompts.py     texts of a file; reads tables
pieces.py      which pieces there are, whose they are, and which are finished
output.py      Parquet files and tar shards
run.py         reads, computes on all devices, writes piece after piece
score.py       cosines of images and texts
"""
