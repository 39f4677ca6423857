"""Pictures survive encoding bit for bit and open everywhere as what they are."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dp_hub.dataset.convert import convert
from dp_hub.dataset.images import decode_image, episode_encoder
from dp_hub.errors import DataError


@pytest.mark.parametrize("encoding", ["webp", "png"])
@pytest.mark.parametrize("size", [(16, 20), (96, 96), (150, 30)])
def test_pictures_come_back_bit_for_bit_in_order(encoding, size):
    pictures = np.random.default_rng(0).integers(0, 256, (70, *size, 3)).astype(np.uint8)
    encoded = episode_encoder(encoding, 70, (*size, 3))(pictures)
    assert len(encoded) == 70
    for data, picture in zip(encoded, pictures, strict=True):
        np.testing.assert_array_equal(decode_image(data, (*size, 3)), picture)
        assert Image.open(io.BytesIO(data)).format == encoding.upper()
        assert Image.open(io.BytesIO(data)).mode == "RGB"


def test_grey_pictures_come_back(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 1)).astype(np.uint8)
    first, *_ = episode_encoder("png", 3, (40, 30, 1))(pictures)
    assert Image.open(io.BytesIO(first)).mode == "L"
    np.testing.assert_array_equal(decode_image(first, (40, 30, 1)), pictures[0])


def test_transposed_pictures_are_encoded_as_seen():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 24)).astype(np.uint8)
    turned = pictures.transpose(0, 2, 3, 1)
    for encoding in ("webp", "png"):
        encode = episode_encoder(encoding, 2, (20, 24, 3))
        for data, picture in zip(encode(turned), turned, strict=True):
            np.testing.assert_array_equal(decode_image(data, (20, 24, 3)), picture)


def test_bytes_that_are_no_picture_or_of_another_size_are_refused():
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_image(b"nonsense", (4, 4, 3))
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    with pytest.raises(DataError, match="not"):
        decode_image(buffer.getvalue(), (4, 4, 3))


def test_real_pictures_are_small_in_both_forms(tmp_path, pusht_first5_zip):
    for encoding, limit in (("webp", 560), ("png", 280)):
        convert("zarr", pusht_first5_zip, tmp_path / encoding, images=encoding)
        file = pq.ParquetFile(tmp_path / encoding / "data/chunk-000/file-000.parquet")
        sizes = [
            column.total_compressed_size
            for group in range(file.num_row_groups)
            for i in range(file.metadata.num_columns)
            if (column := file.metadata.row_group(group).column(i)).path_in_schema.endswith(
                ".bytes"
            )
        ]
        assert len(sizes) == 5
        assert sum(sizes) / 738 < limit
