"""Signature tensors: names that identify the kind of a checkpoint."""

from __future__ import annotations

OPENAI_SIGNATURE = "visual.conv1.weight"  # a tensor that every checkpoint under OpenAI's names has
FULL_VQGAN_SIGNATURE = "model.encoder.conv_in.weight"

# A tensor that only this kind of checkpoint has -> what to call it. A ResNet has OpenAI's mark
# too, so the more particular ones come first.
SIGNATURES = {
    "visual.layer1.0.conv1.weight": "an OpenAI CLIP with a ResNet, which has no counterpart here",
    OPENAI_SIGNATURE: "a CLIP under OpenAI's names (ruclip or openai-clip)",
    "vision_model.embeddings.patch_embedding.weight": "a transformers CLIPModel (hf-clip)",
    "visual_encoder.model.conv1.weight": "the first ruCLIP (ruclip-small)",
    "l_text_pos_embeddings.weight": "RUDOLPH (rudolph)",
    "text_pos_embeddings.weight": "ruDALL-E (rudalle)",
    "image_row_embeddings.weight": "RUDOLPH or ruDALL-E (rudolph, rudalle)",
    "encoder.conv_in.weight": "a VQGAN (vqgan)",
    FULL_VQGAN_SIGNATURE: "a VQGAN (vqgan)",
    "body.0.rdb1.conv1.weight": "a Real-ESRGAN (real-esrgan)",
}
