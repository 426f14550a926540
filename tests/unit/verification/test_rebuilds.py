"""What differs between builds of the same engines."""

import numpy as np

from ccr_deploy.verification.rebuilds import ChainOutputs, Differences, spread_of


def outputs(codes: list[list[int]], classes: list[int]) -> ChainOutputs:
    return ChainOutputs(np.array(codes, np.uint8), np.array(classes))


REFERENCE = outputs([[0b0000], [0b1111]], [3, 4])
INSTALLED = outputs([[0b0001], [0b1111]], [3, 4])


def test_builds_that_agree_have_no_spread() -> None:
    found = spread_of(REFERENCE, {"installed": INSTALLED, "build 1": INSTALLED})
    assert found.builds["build 1"] == Differences(1, 0, 0, 0)
    assert (found.bits_that_vary, found.images_that_vary) == (0, [])


def test_each_build_is_compared_with_the_reference_and_the_installed_one() -> None:
    other = outputs([[0b0010], [0b0111]], [3, 0])
    found = spread_of(REFERENCE, {"installed": INSTALLED, "build 1": INSTALLED, "build 2": other})
    assert found.builds["installed"] == Differences(1, 0, 0, 0)
    assert found.builds["build 2"] == Differences(
        flipped_bits=2, changed_answers=1, bits_unlike_installed=3, answers_unlike_installed=1
    )
    assert (found.bits_that_vary, found.images_that_vary) == (3, [1])


def test_a_bit_that_several_builds_flip_varies_once() -> None:
    one, two = outputs([[0b0011], [0b1111]], [3, 4]), outputs([[0b0111], [0b1111]], [1, 4])
    found = spread_of(REFERENCE, {"installed": INSTALLED, "build 1": one, "build 2": two})
    assert (found.bits_that_vary, found.images_that_vary) == (2, [0])
