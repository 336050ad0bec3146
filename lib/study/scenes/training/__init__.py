"""How the model of Scenes was trained."""
