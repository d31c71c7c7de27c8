"""Which way every metric of `musical_tf.metrics` improves. No imports: tables are made from it."""

HIGHER_IS_BETTER: dict[str, bool | None] = {
    "authors/psnr": True,
    "authors/ssim": True,
    "authors/l1_percent": False,
    "hole/psnr": True,
    "hole/ssim": True,
    "hole/l1_percent": False,
    "hole/l2_percent": False,
    "deepfill/l1_percent": False,
    "deepfill/l2_percent": False,
    "deepfill/psnr": True,
    "deepfill/tv_percent": None,
    "lpips/alex": False,
}
"""Every metric and which way it improves; None where neither does (blur lowers total variation)."""
