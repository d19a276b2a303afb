"""The profile unixfs-v1-2025, pinned by the CIDs that Kubo publishes in test/cli/cid_profiles_test.go (v0.43.1)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ledger.content import Cid, Limits, MemoryStore, NotPublishable
from ledger.content.unixfs import MAX_DIRECTORY_BYTES, add_bytes, add_file, directory_blocks

Stream = Callable[[str], Callable[[int], bytes]]
MIB = 1 << 20
ALPHABET = "abcdefghijklmnopqrstuvwxyz01234567890-_"


def file_cid(size: int, read: Callable[[int], bytes]) -> str:
    return str(add_file(size, read, lambda block: None).cid)


def named_files(stream: Callable[[int], bytes], last_name_chars: int) -> dict[str, bytes]:
    """4,766 files that hold "x"; names of 11 characters from the stream, the last one longer."""
    lengths = [11] * 4765 + [last_name_chars]
    return {"".join(ALPHABET[byte % len(ALPHABET)] for byte in stream(length)): b"x" for length in lengths}


def test_a_small_file_is_one_raw_leaf() -> None:
    link = add_bytes(b"hello world", lambda block: None)
    assert str(link.cid) == "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


@pytest.mark.parametrize(
    ("size", "cid"),
    [
        (MIB, "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta"),
        (MIB + 1, "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64"),
    ],
)
def test_a_file_is_split_above_one_chunk(chacha_stream: Stream, size: int, cid: str) -> None:
    assert file_cid(size, chacha_stream("chunk-v1-seed")) == cid


@pytest.mark.parametrize(
    ("size", "cid"),
    [
        pytest.param(1024 * MIB, "bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm", marks=pytest.mark.long),
        (1024 * MIB + 1, "bafybeibdsi225ugbkmpbdohnxioyab6jsqrmkts3twhpvfnzp77xtzpyhe"),
        pytest.param(1025 * MIB, "bafybeihmzokxxjqwxjcryerhp5ezpcog2wcawfryb2xm64xiakgm4a5jue", marks=pytest.mark.long),
    ],
)
def test_a_tree_grows_a_level_above_1024_links(chacha_stream: Stream, size: int, cid: str) -> None:
    assert file_cid(size, chacha_stream("v1-2025-seed")) == cid


def test_the_largest_plain_directory(chacha_stream: Stream) -> None:
    files = named_files(chacha_stream("hamt-unixfs-v1-2025"), 21)
    root, _ = directory_blocks(files)
    assert str(root.cid) == "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4"
    assert len(root.data) == MAX_DIRECTORY_BYTES
    store = MemoryStore()
    digest = store.put_directory(files)
    assert store.get_directory(digest, Limits(4766, 1, 4766, 1)) == files


def test_one_byte_more_is_refused_because_kubo_would_shard_it(chacha_stream: Stream) -> None:
    with pytest.raises(NotPublishable, match="4766 entries need a sharded directory"):
        directory_blocks(named_files(chacha_stream("hamt-unixfs-v1-2025"), 22))


def test_the_empty_directory_and_the_empty_file() -> None:
    root, _ = directory_blocks({})
    assert str(root.cid) == "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
    assert str(Cid.of(root.cid.codec, root.data)) == str(root.cid)
    assert str(add_bytes(b"", lambda block: None).cid) == "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
