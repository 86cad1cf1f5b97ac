"""What follows from it, without Streamlit."""
