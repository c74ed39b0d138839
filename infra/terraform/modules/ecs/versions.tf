terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # Tested with 5.100. Nothing that 6.0 removed or renamed is used (its upgrade guide was read); 6 itself was not run.
      version = ">= 5.80, < 7.0"
    }
  }
}
