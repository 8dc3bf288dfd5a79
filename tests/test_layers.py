from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import LayerError
from profiler.layers.layer import LayerSpec, conv2d, depthwise_conv2d, fully_connected

sizes = st.integers(1, 40)


@st.composite
def layers(draw: st.DrawFn) -> LayerSpec:
    image = (1, draw(st.integers(5, 40)), draw(st.integers(5, 40)), draw(sizes))
    activation = draw(st.sampled_from(["none", "relu", "relu6", "hard_swish"]))
    kernel, stride = draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 2]))
    match draw(st.sampled_from(["conv2d", "depthwise", "add", "concat", "fully_connected", "global_avg_pool", "flatten"])):
        case "conv2d":
            return conv2d(image, draw(sizes), kernel, stride=stride, activation=activation)
        case "depthwise":
            return depthwise_conv2d(image, kernel, stride=stride, activation=activation)
        case "add":
            return LayerSpec("add", (image, image), image, activation=activation)
        case "concat":
            other = (*image[:-1], draw(sizes))
            return LayerSpec("concat", (image, other), (*image[:-1], image[-1] + other[-1]))
        case "fully_connected":
            return fully_connected((1, image[-1]), draw(sizes))
        case "flatten":
            return LayerSpec("flatten", (image,), (1, image[1] * image[2] * image[3]))
        case _:
            return LayerSpec("global_avg_pool", (image,), (1, image[-1]))


@given(layers())
def test_a_layer_survives_json(layer: LayerSpec) -> None:
    assert LayerSpec.from_dict(layer.to_dict()) == layer


@given(layers(), layers())
def test_equal_keys_mean_equal_layers(one: LayerSpec, other: LayerSpec) -> None:
    assert (one.key == other.key) == (one == other)


@given(layers(), st.integers(1, 64))
def test_resizing_to_other_channels_and_back_gives_the_same_layer(layer: LayerSpec, channels: int) -> None:
    other = [(*shape[:-1], channels) for shape in layer.inputs]
    assert layer.resized(other).resized(layer.inputs) == layer


def test_a_convolution_costs_a_kernel_for_every_output_pixel() -> None:
    layer = conv2d((1, 32, 32, 3), 16, 3, stride=2)
    assert layer.output == (1, 16, 16, 16)
    assert layer.macs == 16 * 16 * 16 * 3 * 9
    assert layer.parameters == 16 * 3 * 9 + 16


def test_a_transposed_convolution_costs_a_kernel_for_every_input_pixel() -> None:
    layer = LayerSpec("conv_transpose2d", ((1, 4, 4, 8),), (1, 8, 8, 16), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    assert layer.macs == 4 * 4 * 8 * 16 * 9


def test_a_depthwise_convolution_has_one_filter_a_channel() -> None:
    assert depthwise_conv2d((1, 8, 8, 24), 3).weight_shape == (24, 1, 3, 3)


def test_one_output_channel_does_not_make_a_convolution_depthwise() -> None:
    assert conv2d((1, 8, 8, 32), 1, 1).op == "conv2d"


def test_an_output_that_does_not_follow_from_the_input_is_refused() -> None:
    with pytest.raises(LayerError, match="cannot give output"):
        LayerSpec("conv2d", ((1, 8, 8, 4),), (1, 9, 8, 4))


def test_a_kernel_larger_than_the_image_is_refused() -> None:
    with pytest.raises(LayerError, match="larger than the padded input"):
        LayerSpec("max_pool2d", ((1, 2, 2, 4),), (1, 1, 1, 4), kernel=(3, 3))


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(LayerError, match="groups"):
        conv2d((1, 8, 8, 6), 8, 3, groups=4)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.booleans(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=6), inner),
    )
)
def test_any_json_that_is_not_a_layer_is_refused_with_our_error(plain: object) -> None:
    with pytest.raises(LayerError):
        LayerSpec.from_dict(plain)  # type: ignore[arg-type]
