"""Words that people type: how they are compared, and which known word a mistyped one may mean."""

import difflib
import re
from collections.abc import Iterable

# Names in other programs:names here. Names with a similar spelling are found without an entry.
SYNONYMS = dict(
    re.findall(
        r"(\S+):(\S+)",
        "lr:lr_G,lr_D learning_rate:lr_G,lr_D iterations:total_steps iters:total_steps max_steps:total_steps "
        "nz:z_dim latent_dim:z_dim noise_dim:z_dim ndf:base_channels ngf:base_channels n_critic:n_dis d_steps:n_dis "
        "beta1:betas beta2:betas resolution:image_size bs:batch_size data:data_dir dataroot:data_dir out:run_dir "
        "outdir:run_dir output_dir:run_dir gpu:device gpus:device cuda:device arch:model ckpt:resume,init_from "
        "checkpoint:resume,init_from ema:ema_decay fp16:amp flip:mirror workers:threads gp:gradient_penalty "
        "wgan_gp:gradient_penalty,wasserstein wgan:wasserstein sn:spectral bn:batch gan:bce cgan:concat",
    )
)


def folded(word: object) -> str:
    """Return a word as it is compared with others: in lower case, and with _ for -."""
    return str(word)[:200].lower().replace("-", "_").strip(" _")


def suggestion(mistyped: object, known: Iterable[object]) -> str:
    """Return the end of a message that asks for the known word meant. It is "" if none resembles the mistyped one."""
    words, given = {folded(word): str(word) for word in known}, folded(mistyped)
    meant = folded(SYNONYMS.get(given, "")).split(",")
    close = [word for word in meant if word in words] or difflib.get_close_matches(given, words, 1)
    return f"; did you mean {' or '.join(words[word] for word in close)}?" if close else ""
