"""Labelled sets in the layouts of their sources, with a handful of images each."""

import csv
import io
import json
import struct
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python.array_record_data_source import ArrayRecordDataSource
from PIL import Image


def picture(i, format="PNG", mode="RGB", size=(6, 4)):
    buffer = io.BytesIO()
    colour = (i, 2 * i % 256, 255 - i) if mode == "RGB" else i
    Image.new(mode, size, colour).save(buffer, format)
    return buffer.getvalue()


def make_tree(folder, splits):
    """SPLIT/CLASS/*.png of splits {name: {class: how many}}; returns the bytes by path."""
    written = {}
    for split, classes in splits.items():
        for name, count in classes.items():
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                path = f"{split}/{name}/{i}.png"
                written[path] = picture(len(written))
                (folder / path).write_bytes(written[path])
    return written


def make_table(folder, name, labels, image="image", label="label"):
    """A table of images img/N.png beside it; returns their bytes."""
    (folder / "img").mkdir(parents=True, exist_ok=True)
    start = len(list((folder / "img").iterdir()))
    files = [f"img/{start + i}.png" for i in range(len(labels))]
    pictures = [picture(start + i) for i in range(len(labels))]
    for file, data in zip(files, pictures, strict=True):
        (folder / file).write_bytes(data)
    rows = [{image: f, label: value} for f, value in zip(files, labels, strict=True)]
    if name.endswith(".jsonl"):
        (folder / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            delimiter = "\t" if name.endswith(".tsv") else ","
            writer = csv.DictWriter(file, [image, label], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return pictures


def make_tars(folder, splits, class_names, shard=2, format="webp"):
    """CLIP_benchmark's layout of splits {name: labels}; returns the bytes by split."""
    written = {}
    for split, labels in splits.items():
        (folder / split).mkdir(parents=True)
        written[split] = [picture(i, format) for i in range(len(labels))]
        for first in range(0, len(labels), shard):
            with tarfile.open(folder / split / f"{first // shard}.tar", "w") as tar:
                for i in range(first, min(first + shard, len(labels))):
                    add(tar, f"s{i:07d}.cls", str(labels[i]).encode())
                    add(tar, f"s{i:07d}.{format}", written[split][i])
        (folder / split / "nshards.txt").write_text(str(-(-len(labels) // shard)))
    (folder / "classnames.txt").write_text("\n".join(class_names) + "\n", encoding="utf-8")
    return written


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def make_parquet(folder, splits, class_names, group=2):
    """Write a set with an Image and a ClassLabel as the hub does; return the bytes by split."""
    (folder / "data").mkdir(parents=True)
    about = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": class_names}}
    written = {}
    for split, labels in splits.items():
        written[split] = [picture(i, "JPEG") for i in range(len(labels))]
        images = [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(written[split])]
        table = pa.table({"image": images, "label": pa.array(labels, pa.int64())})
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": about}})}
        )
        half = len(labels) // 2
        for i, part in enumerate((table[:half], table[half:])):
            name = f"{split}-{i:05d}-of-00002.parquet"
            pq.write_table(part, folder / "data" / name, row_group_size=group)
    return written


def tf_record_file(records):
    """Return a file of these records, without checksums."""
    return b"".join(struct.pack("<QI", len(r), 0) + r + bytes(4) for r in records)


def to_tf_records(folder):
    """Turns a TFDS folder in ArrayRecord form into one in TFRecord form; returns it."""
    for file in folder.glob("*.array_record*"):
        with ArrayRecordDataSource([str(file)]) as records:
            data = tf_record_file(records[i] for i in range(len(records)))
        (folder / file.name.replace("array_record", "tfrecord")).write_bytes(data)
        file.unlink()
    info = folder / "dataset_info.json"
    info.write_text(info.read_text("utf-8").replace("array_record", "tfrecord"), "utf-8")
    return folder
