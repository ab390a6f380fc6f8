"""Which parameters a pattern of `freeze` and `layers` matches."""

from collections import OrderedDict
from typing import Any

import pytest
import yaml
from torch import nn

from alexnet_lab.config.layer_patterns import Factors, factors_by_name, freeze, last_layer
from alexnet_lab.config.schema import check_run_settings
from alexnet_lab.errors import UserError
from alexnet_lab.models.table import layer_table


def network() -> nn.Sequential:
    features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    rows = [
        ("features", features),
        ("conv_1x1", nn.Conv2d(2, 2, 1)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(8, 3)),
    ]
    return nn.Sequential(OrderedDict(rows))


def frozen(*patterns: object) -> set[str]:
    net = network()
    freeze(net, patterns, last_layer(layer_table(net, 1, 6)))
    return {name for name, parameter in net.named_parameters() if not parameter.requires_grad}


OF_FEATURES = {"features.0.weight", "features.0.bias", "features.2.weight", "features.2.bias"}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ((), set()),
        (("features",), OF_FEATURES),
        (("features.*",), OF_FEATURES),
        (("feat*",), OF_FEATURES),
        (("features.0",), {"features.0.weight", "features.0.bias"}),
        (("features.[0-1]", "fc.bias"), {"features.0.weight", "features.0.bias", "fc.bias"}),
        (("conv*",), {"conv_1x1.weight", "conv_1x1.bias"}),
        (("*.bias",), {"features.0.bias", "features.2.bias", "conv_1x1.bias", "fc.bias"}),
        (("last",), {"fc.weight", "fc.bias"}),
    ],
)
def test_pattern_matches_parameters_and_all_that_is_in_a_module(patterns: tuple[str, ...], names: set[str]) -> None:
    assert frozen(*patterns) == names


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            ("features", "cnv*"),
            r"freeze=\[cnv\*\]: no layer has such a name; the layers: features\.0, features\.2, conv_1x1, fc",
        ),
        (("weight",), "no layer has such a name"),
        (("*",), "freeze: this freezes all layers"),
        (("features", "conv_1x1", "fc"), "leave one of them to train"),
    ],
)
def test_pattern_without_a_match_and_freezing_all_are_refused(patterns: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        frozen(*patterns)


def test_layers_with_numbers_as_names_need_no_quotes() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
    freeze(net, [0], "1")
    assert [parameter.requires_grad for parameter in net.parameters()] == [False, False, True, True]


def test_first_matching_pattern_decides_the_factors() -> None:
    layers = [
        {"pattern": "*.bias", "weight_decay": 0.0},
        {"pattern": "last", "lr": 10.0},
        {"pattern": "f*", "lr": 2.0, "weight_decay": 3.0},
    ]
    assert factors_by_name(network(), layers, "fc") == {
        **dict.fromkeys(["features.0.bias", "features.2.bias", "conv_1x1.bias", "fc.bias"], Factors(1.0, 0.0)),
        "fc.weight": Factors(10.0, 1.0),
        **dict.fromkeys(["features.0.weight", "features.2.weight"], Factors(2.0, 3.0)),
    }


def test_factors_of_no_layer_are_refused() -> None:
    with pytest.raises(UserError, match=r"layers: fc8: no layer has such a name; the layers: features\.0, "):
        factors_by_name(network(), [{"pattern": "fc8", "lr": 10.0}], "fc")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("freeze=conv1", r"freeze: 'conv1' does not fit: it takes a list: \[conv1\]"),
        ("layers=[{pattern:fc8,lr:-1}]", r"layers\.0\.lr: -1 does not fit"),
        ("layers=[{pattern:fc8,rate:1}]", r"there is no option 'layers\.0\.rate'"),
        ("layers=[fc8]", r"layers: .* does not fit: .*\[\{pattern: fc8, lr: 10\}\]"),
        ("layers={pattern:fc8,lr:10}", r"layers: .* does not fit: .*\[\{pattern: fc8, lr: 10\}\]"),
        ("layers=[{lr:10}]", r"layers\.0\.pattern is missing"),
    ],
)
def test_wrong_values_are_refused(override: str, message: str, settings: Any) -> None:
    key, _, value = override.partition("=")
    found = {**settings(), key: yaml.safe_load(value.replace(":", ": "))}
    with pytest.raises(UserError, match=message):
        check_run_settings(found)


def test_patterns_are_typed_without_quotes_inside(settings: Any) -> None:
    found = settings(
        "freeze=[conv*,features.*]", "layers=[{pattern:classifier.6,lr:10},{pattern:*.bias,weight_decay:0}]"
    )
    check_run_settings(found)
    assert found["freeze"] == ["conv*", "features.*"]
    assert found["layers"] == [{"pattern": "classifier.6", "lr": 10}, {"pattern": "*.bias", "weight_decay": 0}]
