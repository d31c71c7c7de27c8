import pytest

from export import ship, to_onnx, to_saved_model
from serving import predict, predict_many
from training import compare, demo, evaluate, fit_jax, options

PARSERS = {
    "predict": predict._parser,
    "predict_many": predict_many._parser,
    "fit": options.make_parser,
    "fit_jax": fit_jax._parser,
    "evaluate": evaluate.build_parser,
    "compare": compare.build_parser,
    "demo": demo.parser,
    "to_onnx": to_onnx._parser,
    "to_saved_model": to_saved_model._parser,
    "ship": ship._parser,
}


@pytest.mark.parametrize("name", PARSERS)
def test_an_unset_variable_is_no_path(name, capsys):
    """Every command line refuses it; `Path("")` would be the working directory."""
    for words in (["--output", ""], ["--output="], ["--image", "a.png", "--output", " "]):
        with pytest.raises(SystemExit) as exit_info:
            PARSERS[name]().parse_args(words)
        assert exit_info.value.code == 2
        assert "--output must have a value, got '" in capsys.readouterr().err
