"""A Gradio app: paint over what should go, and get the photograph without it."""

import gradio
from PIL import Image, ImageChops

import musical_tf


def erase(editor: dict, model: str, fill: str) -> Image.Image:
    """Fills what is painted.

    Args:
        editor: Value of the image editor: `background` and `layers`, PIL images.
        model: A name from `musical_tf.list_models`.
        fill: "auto", "copy" or "network".
    """
    if editor["background"] is None:
        raise gradio.Error("Open a photograph first.")
    photo = editor["background"].convert("RGB")
    mask = Image.new("L", photo.size)
    for layer in editor["layers"]:
        mask = ImageChops.lighter(mask, layer.convert("RGBA").getchannel("A"))
    try:
        return musical_tf.inpaint(
            photo, mask.point(lambda level: 255 * (level > 127)), model=model, fill=fill
        )
    except ValueError as error:
        raise gradio.Error(str(error)) from error


app = gradio.Interface(
    erase,
    [
        gradio.ImageEditor(type="pil", label="Paint over what should go", brush=gradio.Brush()),
        gradio.Radio(musical_tf.list_models(), value="photo", label="Model"),
        gradio.Radio(["auto", "copy", "network"], value="auto", label="Fill"),
    ],
    gradio.Image(type="pil", format="png", label="Without it"),
    title="musical",
    description="Erases people, signs and scratches from photographs.",
    flagging_mode="never",
    api_name="erase",
)

if __name__ == "__main__":
    app.launch()
