"""The cluster secret: what is typed, what is refused, what is derived."""

from __future__ import annotations

import os
import re
import string
from pathlib import Path

import pytest

from asha.cluster.secret import Secret, hkdf_sha256
from asha.errors import UserError

SECRET = Secret(bytes(range(32)))

# RFC 5869, appendix A, tests 1, 2 and 3: IKM, salt, info, length, OKM.
RFC_5869 = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x00, 0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c6"
        "5e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize(("material", "salt", "info", "length", "expected"), RFC_5869)
def test_hkdf_as_in_the_rfc(
    material: str, salt: str, info: str, length: int, expected: str
) -> None:
    given = [bytes.fromhex(text) for text in (material, salt, info)]
    made = hkdf_sha256(given[0], given[1], given[2], length)
    assert made.hex() == expected


@pytest.mark.parametrize("length", [0, 8161])
def test_hkdf_has_a_most(length: int) -> None:
    with pytest.raises(ValueError, match="8160"):
        hkdf_sha256(b"x", b"", b"", length)


def test_typed_is_fourteen_groups_of_four() -> None:
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){13}[0-9A-HJKMNP-TV-Z]{4}", SECRET.typed)
    assert SECRET.text == SECRET.typed + "\n"


def test_typed_and_parsed_is_the_same() -> None:
    for _ in range(20):
        one = Secret.generate()
        assert Secret.parse(one.typed) == one


def test_two_are_never_the_same() -> None:
    assert Secret.generate() != Secret.generate()


@pytest.mark.parametrize(
    "careless",
    [
        str.lower,
        lambda typed: typed.replace("-", ""),
        lambda typed: typed.replace("-", " "),
        lambda typed: f"  {typed}\n",
        lambda typed: typed.replace("0", "O"),
        lambda typed: typed.replace("0", "o").replace("1", "l"),
        lambda typed: typed.replace("1", "I"),
        lambda typed: typed.replace("-", "\u2013"),
    ],
)
def test_forgives_how_it_was_typed(careless: object) -> None:
    assert callable(careless)
    assert "0" in SECRET.typed
    assert "1" in SECRET.typed
    assert Secret.parse(careless(SECRET.typed)) == SECRET


def test_says_which_group_has_a_wrong_character() -> None:
    typed = SECRET.typed[:11] + "U" + SECRET.typed[12:]
    with pytest.raises(ValueError, match=r"'U' in group 3"):
        Secret.parse(typed)


def test_says_what_the_length_is() -> None:
    with pytest.raises(ValueError, match=r"has 55 letters and digits, the secret has 56"):
        Secret.parse(SECRET.typed[:-1])
    with pytest.raises(ValueError, match="has 57"):
        Secret.parse(SECRET.typed + "0")
    with pytest.raises(ValueError, match="nothing"):
        Secret.parse(" - ")


def test_any_one_mistyped_symbol_is_noticed() -> None:
    symbols = SECRET.typed.replace("-", "")
    for place, symbol in enumerate(symbols):
        other = "7" if symbol != "7" else "8"
        with pytest.raises(ValueError, match="checksum"):
            Secret.parse(symbols[:place] + other + symbols[place + 1 :])


def test_two_symbols_that_changed_places_are_noticed() -> None:
    symbols = SECRET.typed.replace("-", "")
    place = next(i for i in range(len(symbols)) if symbols[i] != symbols[i + 1])
    swapped = symbols[:place] + symbols[place + 1] + symbols[place] + symbols[place + 2 :]
    with pytest.raises(ValueError, match="checksum"):
        Secret.parse(swapped)


def test_nothing_of_it_is_printed() -> None:
    shown = f"{SECRET!r} {SECRET} {[SECRET]}"
    assert SECRET.typed[:4] not in shown
    assert bytes(range(32)).hex() not in shown
    assert "not shown" in shown


def test_keys_are_the_same_on_both_nodes_and_all_different() -> None:
    again = Secret.parse(SECRET.typed)
    keys = [SECRET.corosync_authkey(), SECRET.drbd(), SECRET.ami(), SECRET.join_key().hex()]
    assert keys == [again.corosync_authkey(), again.drbd(), again.ami(), again.join_key().hex()]
    beginnings = {key[:16] for key in keys}
    assert len(beginnings) == 4
    other = Secret.generate()
    assert other.drbd() != SECRET.drbd()


def test_keys_never_change_between_releases() -> None:
    """The second node may be installed years later, by a newer version."""
    assert SECRET.drbd() == "b7f4aab3b6cf289baee0b243015d4f1c46f615b273ef9a9f"
    assert SECRET.ami() == "dd11d5cd8b465e4e04d06b2e4343ded4a77406a9"
    assert SECRET.join_key().hex()[:32] == "38b282769a44fcccfa2dbfe7479894ee"
    assert SECRET.corosync_authkey()[:32] == "WGqdDieGd-T-ihCT2jjY3n7qE4FU_v9S"


def test_keys_have_the_form_that_their_readers_take() -> None:
    authkey = SECRET.corosync_authkey()
    assert len(authkey) == 256
    assert set(authkey) <= set(string.ascii_letters + string.digits + "-_")
    assert re.fullmatch("[0-9a-f]{48}", SECRET.drbd())
    assert re.fullmatch("[0-9a-f]{40}", SECRET.ami())
    assert len(SECRET.join_key()) == 32


def test_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET.text)
    file.chmod(0o600)
    assert Secret.read(file) == SECRET
    assert Secret.read(str(file)) == SECRET


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET.text)
    file.chmod(mode)
    with pytest.raises(UserError, match="read by others") as refused:
        Secret.read(file)
    assert refused.value.hint == f"chmod 600 {file}"
    assert SECRET.typed not in str(refused.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_trusts_no_other_users_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET.text)
    file.chmod(0o600)
    os.chown(file, 65534, 65534)
    with pytest.raises(UserError, match="another user"):
        Secret.read(file)


def test_a_damaged_file_is_trouble_and_a_missing_one_an_error(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET.typed[:-1] + "\n")
    file.chmod(0o600)
    with pytest.raises(UserError, match="55 letters"):
        Secret.read(file)
    with pytest.raises(FileNotFoundError):
        Secret.read(tmp_path / "none")
