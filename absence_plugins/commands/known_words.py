"""Words that options take, known before torch is imported; a test compares them with the modules that use them."""

from __future__ import annotations

PROTOCOLS = ("controlled", "paper")
REDUCES = ("mean", "max", "min", "sum", "cls")
SCAN_MODES = ("crop", "mask")
GROUPINGS = ("exact", "auto", "none")  # beside a file
NAME_MODES = ("positive", "negative")
NAME_SCORES = ("auc", "auprc", "f1", "iou", "correlation")
PREFERENCES = ("short", "score")  # "auc" is "score" where that is AUC
SEARCHES = ("auto", "certified", "beam")
PROVEN_LENGTH = 4
LABEL_FORMATS = ("auto", "table", "celeba", "cub", "coco", "lvis", "openimages", "broden", "invert")
MEANINGS = ("auto", "absent", "unknown")  # of -1, --labels-minus
CHOSEN = "auto"  # of --labels-threshold, beside a number
WORDNET = "wordnet"  # of --hypernyms, beside a file
BACKGROUNDS = ("none", "virtual", "detectors")
RECIPES = ("robust", "paper")
DEVICES = ("auto", "cpu", "cuda")
SKIPPED = ("maps", "pictures", "name", "faithfulness")
PUBLISHED = ("vgg19", "resnet50", "vit_b_16")  # networks of experiment imagenet
BENCHES = (
    "captum", "zennit", "lucent", "patches", "invert", "directions", "debias", "planted", "relevance", "models",
    "references", "kinds",
)  # fmt: skip
RULES = ("lower_gamma", "lower_zplus", "epsilon", "gamma", "zplus", "alpha_beta")
CAPTUM = (
    "DeepLift", "DeepLiftShap", "FeatureAblation", "FeaturePermutation", "GradientShap", "GuidedBackprop",
    "InputXGradient", "IntegratedGradients", "KernelShap", "LRP", "Lime", "Occlusion", "Saliency",
    "ShapleyValueSampling", "ShapleyValues",
)  # fmt: skip
ZENNIT = (
    "epsilon_alpha2_beta1", "epsilon_alpha2_beta1_flat", "epsilon_gamma", "epsilon_gamma_box", "epsilon_plus",
    "epsilon_plus_flat", "excitation_backprop", "guided_backprop",
)  # fmt: skip
REFUSED = ("DeconvNet", "BetaSmooth")  # composites that exist and cannot show absences: Zennit's side says why
METHODS = ("auto", "relevance", "GradCam", *CAPTUM, *(f"zennit:{name}" for name in ZENNIT))
